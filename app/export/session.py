"""What the server remembers for the Export tab: an upload, and the install of llama.cpp."""

from dataclasses import dataclass, field

from app.export.llama_cpp import LlamaCppInstall
from app.export.upload_session import UploadSession


@dataclass(frozen=True)
class ExportSession:
    """One of each for all browsers. The exports themselves are processes of their own (core/export/jobs.py)."""

    uploads: UploadSession = field(default_factory=UploadSession)
    llama_cpp: LlamaCppInstall = field(default_factory=LlamaCppInstall)
