"""Selects the images that may calibrate a bundle: no image twice, and none that the flow was fitted to."""

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
    """The images that may be used, and how many were left out.

    Attributes:
        fitted: number of images that the flow was fitted to; left out, because their likelihood is too high.
        copies: number of images with the same pixels as an earlier one; left out, because they add no information.
        stopped_by: number of usable images that decided when the training stopped.
    """

    images: tuple[ImageFile, ...]
    given: int
    fitted: int = 0
    copies: int = 0
    unreadable: tuple[str, ...] = ()
    stopped_by: int = 0

    @property
    def left_out(self) -> list[str]:
        """One sentence per reason for which images were left out."""
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
        """The sentences of `left_out`, and what to do if too few images remain."""
        if not self.fitted:
            return self.left_out
        return [
            *self.left_out,
            "Use good images that the training has not seen, or train again with a larger share held out "
            "(uflow-train --hold-out)",
        ]


def admit(files: Sequence[ImageFile], record: TrainingRecord) -> Admission:
    """Check every image once; unreadable ones are logged."""
    images: list[ImageFile] = []
    unreadable: list[str] = []
    seen: set[bytes] = set()
    fitted, stopped_by = set(record.fitted), set(record.held_out)
    known = copies = stopping = 0
    for file in progress(files, "checking images"):
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
