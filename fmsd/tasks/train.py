"""Training: adapt a detector, choose its weights on validation data, test them once."""

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from fmsd.console import print_place
from fmsd.data.audit.summary import table_summary
from fmsd.data.manifest import Manifest
from fmsd.data.selection import Selection
from fmsd.engine.chosen_weights import Chosen, describe_run, load_chosen, write_chosen
from fmsd.engine.curve_log import curve_logger
from fmsd.engine.distributed import check_same_folder, destroy_process_group, init_process_group
from fmsd.engine.learner_settings import LearnerSettings
from fmsd.engine.mask_files import write_mask
from fmsd.engine.model_selection import check_rule, model_choice
from fmsd.engine.scoring import choose_thresholds, predict_validation, score_with_corruptions
from fmsd.engine.session import (
    Components,
    Ending,
    Plan,
    Request,
    Session,
    build_session,
    build_setup,
    load_frames,
    log_sizes,
    run_session,
)
from fmsd.engine.trainer import TrainerFactory, build_training_trainer, single_process_trainer
from fmsd.engine.training_record import monitored_value, training_record
from fmsd.report.terminal import cost_line, print_auc_table, print_verdicts
from fmsd.runs.claim import claim_run
from fmsd.runs.folder import CHECKPOINTS, TRAINING, VERDICTS, Run
from fmsd.runs.verdicts import run_verdicts
from fmsd.tracking import publish

log = logging.getLogger(__name__)


def train(
    request: Request,
    parts: Components,
    plan: Plan | None = None,
    settings: LearnerSettings | None = None,
) -> Run:
    """Trains, chooses and tests a detector; goes on where the run in the folder was interrupted.

    Args:
        request: what the record of the run keeps of the command.
        parts: detector, method, optimizer, data and the other components.
        plan: seed, choice of weights and checkpoints; None for the defaults.
        settings: of the optimizer step; None for the defaults.

    Returns:
        The run, whose folder holds weights, curves, predictions and results.

    Raises:
        InputError: input that cannot be used; before the first checkpoint nothing of the run is
            left behind.
        KeyboardInterrupt: on a signal; the newest checkpoint stays.
    """
    began = time.perf_counter()
    plan, settings = plan or Plan(), settings or LearnerSettings()
    run = Run(request.folder)
    data = parts.data(watch_tests=plan.select == "oracle")
    check_rule(plan.select, data.selection.left_out)
    warmup_epochs = parts.wrapper.warmup_epochs
    choice = model_choice(plan.select, plan.patience, warmup_epochs, run.folder / CHECKPOINTS)
    trainer = build_training_trainer(parts.trainer, run.folder, data, choice)
    is_rank_zero = init_process_group(trainer)
    check_same_folder(run.folder)
    with claim_run(run, request.config, resumable=True) if is_rank_zero else nullcontext():
        load_frames(data, plan.coverage)
        loggers = publish.build_loggers(parts.loggers, run.folder) if is_rank_zero else {}
        setup = build_setup(request, plan, data, trainer, choice, began)
        session = build_session(setup, parts, settings)
        log_sizes(session)
        try:
            curves = begin_logs(session, loggers) if is_rank_zero else []
            ending = run_session(session, curves)
            destroy_process_group()
            if not is_rank_zero:
                return run
            if not ending.finished:
                conclude_interrupted(session, ending)
                raise KeyboardInterrupt
            conclude(session, ending, parts.trainer)
            publish.publish_run(loggers, run)
        finally:
            publish.close_loggers(run.folder)
    print_results(run, f"AUC, {request.name} trained on {', '.join(data.selection.train)}")
    return run


def print_results(run: Run, title: str = "AUC") -> None:
    """Prints the AUCs and the verdicts of a finished run."""
    record = run.record()
    print_auc_table(run.results(), title, cost_line(record))
    print_verdicts(run_verdicts(run, run, record["stamps"]), run.folder)
    print_place(f"The run lies in {run.folder}", run.folder)


def begin_logs(session: Session, loggers: Mapping[str, Any]) -> list[Any]:
    """Warns of faulty data, writes the layer mask and the content of the frames of a new training.

    Also logs the configuration.

    Returns:
        The loggers that get the curves.
    """
    run, checkpoint = session.setup.run, session.setup.checkpoint
    data = session.setup.data
    warn_of_faulty_copies(data.selection, data.listed)
    write_mask(run, session.adapted.adaptation.mask)
    if checkpoint is None and session.setup.training is not None:
        run.write_table(TRAINING, session.setup.training)
    publish.log_configuration(loggers.values(), run.folder)
    if checkpoint is not None:
        log.info("Going on from %s.", checkpoint)
    return [curve_logger(run.folder, checkpoint), *loggers.values()]


def conclude(session: Session, ending: Ending, trainer_factory: TrainerFactory) -> None:
    """Writes the chosen weights, chooses thresholds on validation data, and tests the detector.

    Raises:
        InputError: no weights were chosen.
        KeyboardInterrupt: on a signal during validation or tests.
    """
    run, data, model = session.setup.run, session.setup.data, session.adapted.model
    scoring_trainer = session.setup.trainer
    if scoring_trainer.world_size > 1:
        scoring_trainer = single_process_trainer(trainer_factory, run.folder)
    chosen = write_chosen_weights(session)
    validation = predict_validation(run, scoring_trainer, model, data)
    thresholds = choose_thresholds(run, data.selection.video_score)
    monitored = monitored_value(session, validation)
    record = training_record(session, ending, chosen, monitored, thresholds)
    # from here on the run can be evaluated, whatever happens to the tests
    run.write_record(record)
    coverage = session.setup.plan.coverage
    _, record["stamps"] = score_with_corruptions(
        run, record, scoring_trainer, model, data, coverage=coverage
    )
    verdicts = run_verdicts(run, run, record["stamps"])
    if verdicts is not None:
        run.write(VERDICTS, verdicts.write_csv())
    run.finish(record)


def conclude_interrupted(session: Session, ending: Ending) -> None:
    """Writes the weights of an interrupted run that would be tested, if there are any."""
    run, choice = session.setup.run, session.setup.choice
    if choice.checkpoint.exists():
        chosen = write_chosen_weights(session)
        run.write_record(training_record(session, ending, chosen, choice.best_value, None))


def write_chosen_weights(session: Session) -> Chosen:
    """Loads the chosen weights into the session's model, folds it, and writes them into the run.

    Returns:
        The epoch and the step at which they were reached.

    Raises:
        InputError: their checkpoint is damaged or missing, or training ended before the first
            validation.
    """
    setup = session.setup
    chosen = load_chosen(
        session.learner, setup.choice.checkpoint, setup.choice.best_value is not None
    )
    about = describe_run(setup.request.config, setup.request.name, setup.plan.select)
    write_chosen(setup.run, session.adapted, session.base, about)
    return chosen


def warn_of_faulty_copies(selection: Selection, listed: Manifest) -> None:
    """Warns where the copies of the datasets to train and test on are incomplete or faulty."""
    if problem := copy_summary(selection, listed):
        log.warning(problem)


def copy_summary(selection: Selection, listed: Manifest) -> str | None:
    """One line about faults of the datasets that are trained and tested on; None without faults.

    Args:
        listed: the frames of the root.
    """
    datasets = [*selection.train, *selection.test]
    return table_summary(
        listed.where(dataset=datasets),
        selection.name,
        selection.expected or {},
        selection.names,
        selection.frames,
        selection.frames_to_train,
    )
