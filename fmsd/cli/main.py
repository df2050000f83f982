"""The command line: `fmsd VERB overrides...`; `python train.py ...` is `fmsd train ...`.

What a verb needs is imported once it runs, so that help is there at once.
"""

import difflib
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from fmsd.cli.files import CONF
from fmsd.cli.help import groups, page
from fmsd.cli.overrides import readable
from fmsd.errors import InputError
from fmsd.surroundings import lenient_streams

USAGE = """fmsd VERB [overrides...]

  train      adapt a detector, choose its weights on validation data, test it on every test dataset
  train      resume=RUN    go on with a run that was interrupted
  evaluate   run=RUN [data=NAME ...]    test a run's weights, by default on its own test datasets
  evaluate   run=RUN corrupt=all [severities='[1,3,5]']    ... and how it stands up to corrupted images
  explain    run=RUN [data=NAME ...] [images=4]    heat maps over its test images, and how its features lie
  fold       run=RUN out=FILE.safetensors    a run's weights as a plain timm model
  merge      merger=NAME experts='[RUN_OR_FILE, ...]' out=RUN    specialists of one base as one run, without training
  merge      add=RUN to=MERGED out=RUN    a merge with one more specialist
  extract    data=NAME data.root=PATH out=FOLDER    videos or images as aligned face crops with a manifest
  index      data=NAME out=FILE.parquet    scan a dataset once and keep its manifest
  doctor     data=NAME [out=FILE.json]    what is wrong with a copy of a dataset, and which shortcuts it offers
  pack       data=NAME out=FOLDER [size=1G]    a dataset's images as a few large tars
  report     runs=FOLDER [by=domain] [out=FOLDER]    many runs as tables and one page, by test dataset or by forgery
  reproduce  NAME [seed=0,1,2] [overrides of its trainings...]    the commands behind a table of experiments/
  dashboard  entity=NAME [project=fmsd]    a view of all runs of a project on Weights & Biases

fmsd VERB --help shows a verb's keys. Overrides are Hydra's: group=choice, key=value, -m for a sweep over comma-separated values,
--cfg job to see the result, --config-dir=FOLDER for configuration files of your own.
Example: fmsd train method=fmsd data=ff++ data.root=/data/ff++"""

HELP = ("-h", "--help", "help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit code.

    Returns:
        0: done; 1: done, with failures that were reported; 2: refused with one sentence; 75:
            another process is at work on the run;
        130: interrupted. Of a sweep: that of its first job that has another one than 0; the others
            run all the same.
    """
    lenient_streams()
    try:
        return dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except InputError as error:
        print(f"fmsd: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fmsd: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who read the output has gone, as in `fmsd --help | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def dispatch(words: list[str]) -> int:
    """Prints help or the version, or runs a verb.

    Raises:
        InputError: there is no such verb, or its words cannot be read.
    """
    if len(words) > 1 and words[0] in HELP:
        words = [words[1], HELP[0], *words[2:]]
    verb, *overrides = words or [HELP[0]]
    if verb in ("--version", "version"):
        print(f"fmsd {importlib.metadata.version('fmsd')}")
        return 0
    if verb in HELP:
        print(USAGE)
        return 0
    verbs = [path.stem for path in CONF.glob("*.yaml")]
    if verb not in verbs:
        close = difflib.get_close_matches(verb, verbs, n=1)
        raise InputError(
            f"There is no verb {verb!r}{f' (did you mean {close[0]}?)' if close else ''}",
            f"choose one of {', '.join(sorted(verbs))}",
        )
    if any(word in HELP for word in overrides):
        print(page(verb, [word for word in overrides if word not in HELP]))
        return 0
    from fmsd.cli.job import configure_logging, run
    from fmsd.cli.verbs import reproduce

    if verb == "reproduce":  # runs others, each with a configuration of its own
        configure_logging(verb)
        return reproduce(overrides, main)
    return run(verb, readable(verb, overrides, groups(verb)))
