"""Which of the given images may calibrate a bundle: each picture once, and none that the flow was fitted to."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from uflow_edge.runtime.bundle.training_record import TrainingRecord
from uflow_edge.runtime.cli.command_line import progress
from uflow_edge.runtime.errors import BadInput
from uflow_edge.runtime.images.files import read_image
from uflow_edge.runtime.sources.folders import ImageFile
from uflow_edge.runtime.storage.files import content_hash

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Admission:
    """The images that may be used, and what became of the others.

    Attributes:
        images: in the order they came in.
        given: how many there were.
        fitted: how many the flow was fitted to; they are left out, for it knows them better than new ones.
        copies: how many show the same pixels as one before; they are left out, for they tell nothing new.
        unreadable: what could not be read, and why.
        stopped_by: how many of those that may be used have stopped the training.
    """

    images: tuple[ImageFile, ...]
    given: int
    fitted: int = 0
    copies: int = 0
    unreadable: tuple[str, ...] = ()
    stopped_by: int = 0

    @property
    def left_out(self) -> list[str]:
        """A sentence for each kind of image that was left out."""
        found = []
        if self.fitted:
            found.append(f"Left out, because the flow was fitted to them: {self.fitted} of {self.given} images.")
        if self.copies:
            found.append(f"Left out, because they are copies of other images: {self.copies} of {self.given} images.")
        if self.unreadable:
            found.append(f"Images that could not be read and were left out: {len(self.unreadable)}.")
        return found

    @property
    def left_out_and_remedy(self) -> list[str]:
        """The same, and what to do when too few images are left because of it."""
        if not self.fitted:
            return self.left_out
        return [
            *self.left_out,
            "Give good images that the training has not seen, or train again with a larger share held out "
            "(uflow-train --hold-out)",
        ]


def admit(files: Sequence[ImageFile], record: TrainingRecord) -> Admission:
    """Look at every image once.

    Args:
        files: that were given.
        record: of the bundle's training.
    """
    images: list[ImageFile] = []
    unreadable: list[str] = []
    seen: set[bytes] = set()
    fitted, stopped_by = set(record.fitted), set(record.held_out)
    known = copies = stopping = 0
    for file in progress(files, "looking at the images"):
        try:
            image = read_image(file.path)
        except BadInput as error:
            unreadable.append(str(error))
            logger.warning("unreadable: %(error)s", {"error": error})
            continue
        content = content_hash(file.path) if fitted or stopped_by else ""
        pixels = sha256(repr(image.shape).encode() + image.tobytes()).digest()
        if content in fitted:
            known += 1
        elif pixels in seen:
            copies += 1
        else:
            images.append(file)
            stopping += content in stopped_by
        seen.add(pixels)
    return Admission(tuple(images), len(files), known, copies, tuple(unreadable), stopping)
