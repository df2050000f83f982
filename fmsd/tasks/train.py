"""Training: adapt a detector, choose its weights on validation data, test them once."""

import logging
import time
from contextlib import nullcontext
from typing import Any

import polars as pl

from fmsd.data.audit.summary import table_summary
from fmsd.data.manifest import Manifest
from fmsd.data.selection import Selection
from fmsd.engine.checkpoints import LAST, check_interval, newest_checkpoint
from fmsd.engine.chosen_weights import describe_run, load_chosen, write_chosen
from fmsd.engine.curves import curve_logger
from fmsd.engine.distributed import broadcast_object, destroy_process_group, init_process_group
from fmsd.engine.mask_files import write_mask
from fmsd.engine.model_selection import check_rule, model_choice
from fmsd.engine.scorer import Scorer
from fmsd.engine.scoring import predict, score_with_corruptions
from fmsd.engine.stamp import protocol_stamps, training_facts
from fmsd.engine.trainer import TrainerFactory, single_process_trainer
from fmsd.engine.training import (
    Components,
    Ending,
    LearnerSettings,
    Plan,
    Request,
    Session,
    Setup,
    build_session,
    build_training_trainer,
    check_same_folder,
    load_frames,
    log_sizes,
    run_session,
)
from fmsd.engine.training_record import training_record
from fmsd.quoting import shell_override
from fmsd.report.terminal import cost_line, print_auc_table
from fmsd.runs.claim import claim_run
from fmsd.runs.folder import VALIDATION, Run
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
        KeyboardInterrupt: on Ctrl-C, once the state to resume from is written.
    """
    began = time.perf_counter()
    plan, settings = plan or Plan(), settings or LearnerSettings()
    run = Run(request.folder)
    checkpoints = run.folder / "checkpoints"
    data = parts.data(watch_tests=plan.select == "oracle")
    check_rule(plan.select, data.selection.left_out)
    check_interval(plan.save_every)
    choice = model_choice(plan.select, plan.patience, parts.wrapper.warmup_epochs, checkpoints)
    trainer = build_training_trainer(parts.trainer, run.folder, data, choice)
    is_rank_zero = init_process_group(trainer)
    check_same_folder(run.folder)
    with claim_run(run, request.config, resumable=True) if is_rank_zero else nullcontext():
        load_frames(data, is_rank_zero)
        loggers = publish.build_loggers(parts.loggers, run.folder) if is_rank_zero else {}
        facts = training_facts(data, plan.select)
        stamps = protocol_stamps(data, facts)
        if is_rank_zero:
            warn_of_copies(data.selection, data.listed)
        checkpoint = broadcast_object(newest_checkpoint(checkpoints) if is_rank_zero else None)
        setup = Setup(run, data, trainer, choice, facts, stamps, began, checkpoint)
        session = build_session(setup, parts, plan, settings)
        log_sizes(session, request.name)
        curves = []
        if is_rank_zero:
            write_mask(run, session.adapted.adaptation.mask)
            curves = [curve_logger(run.folder, checkpoint), *loggers.values()]
        if checkpoint is not None:
            log.info("Going on from %s.", checkpoint)
        try:
            publish.log_configuration(loggers.values(), run.folder)
            ending = run_session(session, curves)
            destroy_process_group()
            if not is_rank_zero:
                return run
            if not ending.finished:
                explain_interruption(session)
            record, results = conclude(session, ending, request, plan, parts.trainer)
            publish.publish_run(loggers, run)
        finally:
            publish.close_loggers(run.folder)
    trained_on = ", ".join(data.selection.train)
    print_auc_table(results, f"AUC, {request.name} trained on {trained_on}", cost_line(record))
    print(f"The run lies in {run.folder}")
    return run


def conclude(
    session: Session, ending: Ending, request: Request, plan: Plan, trainer: TrainerFactory
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Writes the chosen weights and the record of a run, and tests it once it is finished.

    Returns:
        The record and the results.

    Raises:
        InputError: no weights were chosen.
        KeyboardInterrupt: training was interrupted.
    """
    setup, model = session.setup, session.adapted.model
    run, data = setup.run, setup.data
    chosen = load_chosen(session.learner, setup.choice.checkpoint)
    about = describe_run(request.config, request.name, plan.select)
    write_chosen(run, session.adapted, session.base, about)
    single = setup.trainer
    if single.world_size > 1:
        single = single_process_trainer(trainer, run.folder)
    validation = None
    if ending.finished:
        manifest = data.splits.validation
        validation = predict(single, Scorer(model), data.validation_loader(), manifest)
        run.write_table(VALIDATION, validation)
    record = training_record(session, request, plan, ending, chosen, validation)
    # from here on the run can be evaluated, whatever happens to the tests
    run.write_record(record)
    if not ending.finished:
        log.warning(
            "The best weights so far are kept, too; test them with fmsd evaluate %s",
            shell_override("run", run.folder),
        )
        raise KeyboardInterrupt
    return record, score_with_corruptions(run, run.record(), single, model, data)


def warn_of_copies(selection: Selection, listed: Manifest) -> None:
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


def explain_interruption(session: Session) -> None:
    """Logs how an interrupted run goes on.

    Raises:
        KeyboardInterrupt: no weights were chosen yet, so nothing can be written.
    """
    folder = session.setup.run.folder
    if (folder / "checkpoints" / LAST).exists():
        log.warning("Interrupted; go on with fmsd train %s", shell_override("resume", folder))
    if not session.setup.choice.checkpoint.exists():
        raise KeyboardInterrupt
