"""images → **what decoding costs**: processor time of large photos, memory of the worst

    python -m bench.decode

Two JPEGs of 4000 x 3000 pixels and quality 90: one photo enlarged (2.0 MB), and a sheet
of many sample photos, whose edges make it hard (3.4 MB). Memory is the peak of a
process of its own for each file, less that of one which only imports; the worst files
declare as many pixels as are allowed.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

from PIL import Image

from bench.circumstances import REPOSITORY, write_record
from bench.ending import command
from bench.options import add_record, command_line
from bench.workloads import data_root
from classifier.bundle import load_bundle
from classifier.decode import DecodeLimits
from classifier.preprocess import preprocess

MODEL = REPOSITORY / "models" / "imagenet"
PEAK = """
import re, sys
from pathlib import Path
from classifier.bundle import load_bundle
from classifier.errors import ImageError
from classifier.preprocess import preprocess
spec = load_bundle(Path(sys.argv[1])).manifest.preprocess
if len(sys.argv) > 2:
    try:
        preprocess(Path(sys.argv[2]).read_bytes(), spec)
    except ImageError:
        pass
# not ru_maxrss, which counts the parent before exec
status = Path("/proc/self/status").read_text()
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024)
"""


def sheet(photos: list[Path], size: tuple[int, int]) -> Image.Image:
    """A picture of that size, filled with real photos."""
    canvas, turn = Image.new("RGB", size), 0
    for top in range(0, size[1], 500):
        for left in range(0, size[0], 500):
            with Image.open(photos[turn % len(photos)]) as photo:
                tile = photo.convert("RGB").resize((500, 500), Image.Resampling.BICUBIC)
            canvas.paste(tile, (left, top))
            turn += 1
    return canvas


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of an image file."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def cpu_ms(data: bytes, rounds: int) -> float:
    """Median processor time of one decode and preprocess, all threads together."""
    spec = load_bundle(MODEL).manifest.preprocess
    preprocess(data, spec)
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        preprocess(data, spec)
        spent.append(1e3 * (time.process_time() - began))
    return statistics.median(spent)


def peak_mb(file: Path | None = None) -> float:
    """Peak resident memory of a process that handles one file, in MB."""
    command = [sys.executable, "-c", PEAK, str(MODEL), *([str(file)] if file else [])]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=REPOSITORY
    )
    return int(done.stdout) / 1e6


def main() -> int:
    """Measure and write the record."""
    parser = command_line("bench.decode", __doc__)
    parser.add_argument("--rounds", type=int, default=15)
    add_record(parser, "decode.json")
    given = parser.parse_args()
    photos = sorted((data_root() / "imagenet-samples").glob("*.JPEG"))
    allowed = DecodeLimits().max_pixels
    large = (8000, allowed // 8000)
    with Image.open(data_root() / "awkward" / "xmp_test.jpg") as photo:
        enlarged = photo.convert("RGB").resize((4000, 3000))
    files = {
        "12 MP photo": encoded(enlarged, "JPEG", quality=90),
        "12 MP sheet": encoded(sheet(photos, (4000, 3000)), "JPEG", quality=90),
        "50 MP JPEG": encoded(sheet(photos, large), "JPEG", quality=90),
        "50 MP PNG, RGBA": encoded(Image.new("RGBA", large), "PNG"),
        "51 MP PNG, refused": encoded(Image.new("L", (8000, large[1] + 125)), "PNG"),
    }
    base_mb = peak_mb()
    result: dict[str, object] = {
        "rounds": given.rounds,
        "imports_only_mb": round(base_mb, 1),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            file = Path(folder, "image")
            file.write_bytes(data)
            result[name] = {
                "bytes": len(data),
                "added_peak_mb": round(peak_mb(file) - base_mb, 1),
            }
    small = [cpu_ms(path.read_bytes(), 3) for path in photos]
    result["cpu_ms"] = {
        "photo_12_mp": round(cpu_ms(files["12 MP photo"], given.rounds), 1),
        "sheet_12_mp": round(cpu_ms(files["12 MP sheet"], given.rounds), 1),
        "sample_photos_median": round(statistics.median(small), 2),
    }
    write_record(given.json, result)
    for name, value in result.items():
        print(f"{name:24} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
