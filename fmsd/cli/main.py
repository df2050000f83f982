"""The command line: `fmsd VERB overrides...`; `python train.py ...` is `fmsd train ...`.

A verb and its libraries are imported when it runs, so that `fmsd --help` answers at once.
"""

import difflib
import importlib.metadata
import sys
from collections.abc import Sequence

from fmsd.cli.conf_files import groups
from fmsd.cli.file_words import cut_files, split_files
from fmsd.cli.help import help_page
from fmsd.cli.interruption import report_interruption
from fmsd.cli.json_flag import JSON, check_json
from fmsd.cli.overrides import to_hydra_overrides
from fmsd.cli.streams import tolerant_streams
from fmsd.errors import InputError
from fmsd.json_output import code_of_exit, open_document, print_error, write_document
from fmsd.package_files import CONF
from fmsd.signals import errors_as_interruption

USAGE = """fmsd VERB [overrides...]

  train      data=NAME [method=NAME]    adapt a detector, choose its weights on validation data, and
             test it on every test dataset
  train      resume=RUN    continue a run that was interrupted
  evaluate   run=RUN [data=NAME ...]    test a run's weights, by default on its own test datasets
  evaluate   run=RUN corrupt=all [severities='[1,3,5]']    the same on corrupted images
  explain    run=RUN [data=NAME ...] [images=4]    attribution maps and a plot of the features
  predict    run=RUN FILE... [out=FOLDER]    score images and videos of your own: faces are found,
             followed and scored, and each file is called fake or not
  export     run=RUN out=FILE.onnx [int8=true]    write a detector as one file for ONNX
             Runtime, or as FILE.pt2 for torch
  demo       run=RUN    the same on a page in the browser, on which files are dropped
  fold       run=RUN out=FILE.safetensors    write a run's weights as a plain timm model
  import     weights=FILE out=RUN    make a run of a published detector: GenD, Effort, DeepfakeBench
  import     scores=FILE data=NAME out=RUN    make a run of the scores of another program
  score      detector=py:MODULE:FACTORY data=NAME out=RUN    score the test datasets with a detector
             of other code, for reports beside your own
  merge      merger=NAME experts='[RUN_OR_FILE, ...]' out=RUN    merge specialists of one base
             without training
  merge      add=RUN to=MERGED out=RUN    add one more specialist to a merge
  extract    data=NAME data.root=PATH out=FOLDER    turn videos or images into aligned face crops
             with a manifest
  extract    status=FOLDER    show how far that is: done, failed, time left
  index      data=NAME out=FILE.parquet    scan a dataset once and write its manifest
  doctor     data=NAME [out=FILE.json]    report what is wrong with a copy of a dataset, and which
             shortcuts it offers
  roots      show where each dataset lies, and what sets that
  pack       data=NAME out=FOLDER [size=1G]    write a dataset's images into a few large tars
  report     runs=FOLDER [by=domain] [out=FOLDER]    show many runs as tables and one page, by test
             dataset or by forgery
  verify     run=RUN or runs=FOLDER    compare the files of runs with the digests in their records
  push       run=RUN repo=USER/NAME [out=FOLDER]    upload a run with its model card to the Hugging
             Face Hub, where run=hf://USER/NAME finds it
  cite       run=RUN [out=FILE.bib]    print the BibTeX of the papers behind a run
  reproduce  NAME [seed=0,1,2] [overrides of its trainings...]    run the commands behind a table of
             experiments/
  dashboard  entity=NAME [project=fmsd]    save a view of a project's runs on Weights & Biases

fmsd VERB --help shows the keys of a verb. Overrides are Hydra's: group=choice, key=value, -m for a
sweep over comma-separated values, --cfg job to print the resulting configuration,
--config-dir=FOLDER for configuration files of your own, --json for a command's tables as JSON.
fmsd completion bash (or zsh, fish) prints a script that completes commands in that shell.
Example: fmsd train method=fmsd data=ff++ data.root=/data/ff++"""

HELP = ("-h", "--help", "help")

VERSION = ("-V", "--version", "version")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code.

    Returns:
        0: done; 1: done, with failures that were reported; 2: refused with one sentence; 75:
            another process is at work on the run; 141: done, but the reader of the output has gone;
            128 + n: interrupted by signal n. The exit code of a sweep is that of its first failed
            job; the others run all the same.
    """
    if sys.stdout is None or sys.stderr is None:  # closed, as by `>&-`; files would get its number
        name = "error output" if sys.stdout else "output"
        print_error(InputError(f"The standard {name} is closed", "send it to a file or /dev/null"))
        return 2
    with tolerant_streams() as streams:
        code = run_to_code(list(sys.argv[1:] if arguments is None else arguments))
    return streams.end(code)


def run_to_code(given: list[str]) -> int:
    """Runs a command line, with its document if it is to have one, and returns its exit code."""
    verb, *rest = given or HELP[:1]
    rest, _ = cut_files(verb, rest)
    as_json = JSON in rest and verb not in VERSION and not {verb, *rest} & {*HELP}
    if not as_json and open_document() is None:
        return run_to_end(given)
    with write_document(verb) as document:
        document.exit_code = run_to_end(given)
    return document.exit_code


def run_to_end(arguments: list[str]) -> int:
    """Runs a command line, prints what ends it early, and returns its exit code."""
    try:
        with errors_as_interruption():
            return dispatch(arguments)
    except InputError as error:
        code, why = 2, error
    except KeyboardInterrupt as error:
        return report_interruption(error)
    except SystemExit as end:
        return code_of_exit(end)
    except Exception as error:  # of the machine also where libraries are imported
        from fmsd.machine_errors import machine_error

        if (refusal := machine_error(error)) is None:
            raise
        code, why = 2, refusal
    print_error(why)
    return code


def dispatch(arguments: list[str]) -> int:
    """Prints help or the version, or runs a verb.

    Raises:
        InputError: there is no such verb, or its overrides cannot be parsed.
    """
    if len(arguments) > 1 and arguments[0] in HELP:
        arguments = [arguments[1], HELP[0], *arguments[2:]]
    verb, *overrides = arguments or [HELP[0]]
    overrides, files = cut_files(verb, overrides)
    verbs = sorted(path.stem for path in CONF.glob("*.yaml"))
    if (text := text_about(verb, overrides, verbs)) is not None:
        print(text)
        return 0
    if verb not in verbs:
        close = difflib.get_close_matches(verb, verbs, n=1)
        raise InputError(
            f"There is no verb {verb!r}{f' (did you mean {close[0]}?)' if close else ''}",
            f"choose one of {', '.join(verbs)}",
        )
    if any(override in HELP for override in overrides):
        print(help_page(verb, [override for override in overrides if override not in HELP]))
        return 0
    if JSON in overrides:
        check_json(verb, overrides)
        overrides = [override for override in overrides if override != JSON]
    from fmsd.cli.examining import with_unread_data
    from fmsd.cli.hydra_run import configure_logging, run
    from fmsd.cli.verbs import reproduce

    if verb == "reproduce":  # runs other verbs, each with its own configuration
        configure_logging(lightning=False)
        return reproduce(overrides, main)
    overrides = with_unread_data(verb, overrides)
    overrides, named = split_files(verb, overrides, groups(verb))
    return run(verb, to_hydra_overrides(verb, overrides, groups(verb)), [*named, *files])


def text_about(verb: str, arguments: list[str], verbs: list[str]) -> str | None:
    """The version, the usage or the completion of the shells; None for any other verb."""
    if verb in VERSION:
        return f"fmsd {installed_version()}"
    if verb in HELP:
        return USAGE
    if verb not in ("completion", "_complete"):
        return None
    from fmsd.cli.completion import replies, shell_script

    if verb == "completion":
        return shell_script(" ".join(arguments)).rstrip()
    return "\n".join(replies(arguments, verbs))


def installed_version() -> str:
    """The version of the installed package."""
    try:
        return importlib.metadata.version("fmsd")
    except importlib.metadata.PackageNotFoundError:
        return "(a checkout that is not installed)"
