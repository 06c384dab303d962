"""
What can go wrong with weights, with the exit codes of `wan models`.

* ModelsError          1
  + BadManifest        2  bad_manifest    models.toml or models.lock says nonsense
  + Missing            3  missing         not there, and nobody was asked to fetch it
  + Corrupt            4  corrupt         bytes that are not those of the manifest
  + NoSpace            5  no_space        the volume cannot hold the plan
  + SourcesFailed      6  sources_failed  each source was tried
  + AuthNeeded         7  auth            a token is absent, refused or not accepted
  + Locked             8  locked          another process fetches it and does not end
  + ReadOnly           9  read_only       the layer to write to does not take writes
  + Stopped          130  stopped         somebody asked us to end
"""

from __future__ import annotations

from typing import ClassVar


class ModelsError(Exception):
    """
    Base class: a stable code, a message for people, and what to do about it.

    Neither text holds a secret: a source is named by its label, never by a signed URL.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BadManifest(ModelsError):
    """The manifest or the lock cannot be used; the message names file, line and key."""

    code = "bad_manifest"
    exit_code = 2


class Missing(ModelsError):
    """A file or a model that is asked for is not there."""

    code = "missing"
    exit_code = 3


class Corrupt(ModelsError):
    """Bytes that are not those of the manifest or of what was recorded before."""

    code = "corrupt"
    exit_code = 4


class NoSpace(ModelsError):
    """The volume cannot hold what is to be fetched; partial files are kept."""

    code = "no_space"
    exit_code = 5


class SourcesFailed(ModelsError):
    """Each source was tried, and none gave the whole file; partial files are kept."""

    code = "sources_failed"
    exit_code = 6


class AuthNeeded(ModelsError):
    """A source wants a token, or another one, or a licence accepted on its page."""

    code = "auth"
    exit_code = 7


class Locked(ModelsError):
    """Another process holds the file's lease for longer than we were to wait."""

    code = "locked"
    exit_code = 8


class ReadOnly(ModelsError):
    """The layer that is to be written does not take writes."""

    code = "read_only"
    exit_code = 9


class Stopped(ModelsError):
    """Somebody asked us to end; what was fetched is kept for the next time."""

    code = "stopped"
    exit_code = 130
