"""What the formats have in common that llama.cpp's own converters write.

They come with its source code, not as a package, so the user says where that is. Files are read
back with the package gguf.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from peftkit.errors import InvalidInput, Unsupported
from peftkit.formats._format import Format

if TYPE_CHECKING:
    from peftkit.exporting.adapted import AdaptedRun

FAMILIES = ("llama", "qwen", "mistral")


@dataclass(frozen=True, kw_only=True)
class LlamaCppFormat(Format):
    """A file of llama.cpp.

    Class attributes:
        script: Name of the converter.
    """

    packages: ClassVar[tuple[str, ...]] = ("gguf",)
    script: ClassVar[str]

    llama_cpp: str | None = None
    """Folder of llama.cpp, or its converter itself."""

    def require(self) -> None:
        super().require()
        self.converter()

    def converter(self) -> Path:
        """The script that is run.

        Raises:
            InvalidInput: It was not named, or is not there.
        """
        if self.llama_cpp is None:
            raise InvalidInput(
                "GGUF files are written by llama.cpp's own converter, and where it is was not said",
                next_step="git clone https://github.com/ggml-org/llama.cpp, install its "
                "requirements, and add --llama-cpp PATH",
            )
        path = Path(self.llama_cpp).expanduser()
        path = path / self.script if path.is_dir() else path
        if not path.is_file() or path.suffix != ".py":
            raise InvalidInput(
                f"there is no {self.script}",
                received=f"--llama-cpp {self.llama_cpp}",
                allowed="the folder of llama.cpp, or the script itself",
                next_step="check the path",
            )
        return path

    def check(self, run: AdaptedRun) -> None:
        backbone = run.bench.backbone
        if run.saved.recipe.task.reads != "token" or backbone.layers.family not in FAMILIES:
            raise Unsupported(
                "GGUF is written of decoders that write, of the families "
                f"{', '.join(FAMILIES)}; this is a {type(backbone.model).__name__}. Next: --format "
                "onnx."
            )

    def convert(self, source: Path, file: Path, kind: str, *options: str) -> None:
        """Run the converter.

        Args:
            source: Folder of transformers or PEFT.
            file: To be written.
            kind: Number format, as the converter calls it.
            *options: What else it is told.

        Raises:
            Unsupported: It fails; with what it said last.
        """
        command = [sys.executable, str(self.converter()), str(source), "--outfile", str(file)]
        done = subprocess.run(
            [*command, "--outtype", kind, *options], capture_output=True, text=True, check=False
        )
        if done.returncode or not file.is_file():
            said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
            raise Unsupported(
                f"llama.cpp's converter did not write the file; it said: {said[:300]}. Next: "
                "check that it knows this architecture and tokenizer, and that its requirements "
                "are installed."
            )
