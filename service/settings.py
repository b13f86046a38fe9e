"""environment → **Settings**: frozen, built once at the entry, and handed down.

`docs/settings.md` is the same table for people; a test holds the two together.
"""

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from classifier.decode import PILLOW_CEILING
from classifier.device import DeviceChoice
from classifier.variant import PrecisionChoice
from service.errors import SettingsError
from service.files import MOST_FILES

PREFIX = "LINNAEUS_"

# Variables with our prefix that belong to other parts of the project.
FOREIGN = frozenset({"LINNAEUS_DATA"})

MIB = 1024 * 1024
DAY_S = 86_400  # infinity would be no time that a timer or a thread can wait for


class StrictEnvironment(EnvSettingsSource):
    """The environment, in which a mistyped LINNAEUS_ variable is an error.

    pydantic-settings ignores variables that it does not know, so `LINNAEUS_PROT=80`
    would start a server on another port than the one that was asked for.
    """

    def __call__(self) -> dict[str, Any]:
        """The known variables by field name, and the unknown ones by their own."""
        unknown = {
            name: value
            for name, value in os.environ.items()
            if name.upper().startswith(PREFIX)
            and name.upper().removeprefix(PREFIX).lower()
            not in self.settings_cls.model_fields
            and name.upper() not in FOREIGN
            and value  # an empty one counts as not set
        }
        return {**super().__call__(), **unknown}


class Settings(BaseSettings):
    """How one process serves. Each field is the variable `LINNAEUS_<NAME>`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid"
    )

    host: str = Field(
        "127.0.0.1", description="Address to listen on; `0.0.0.0` for all."
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        8000,
        description="Port to listen on; `0` takes a free one and logs it, at any log "
        "level.",
    )
    models: Path = Field(Path("models"), description="Folder that holds the bundles.")
    load: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Which bundles to load, separated by commas: `name` for the newest "
        "version, `name/2` for one. Not set: the newest version of every bundle.",
    )
    default_model: str | None = Field(
        None,
        description="Model of a request that names none. Not set: the only one loaded, "
        "else `imagenet` if it is loaded, else a request must name its model.",
    )
    device: DeviceChoice = Field(
        "auto",
        description="`auto` takes CUDA where it really works; `cuda` refuses to start "
        "without it.",
    )
    precision: PrecisionChoice = Field(
        "auto",
        description="Graph variant; `auto` takes the best one for the device, and of "
        "graphs under 1 MB fp32 if that is clearly faster by the clock.",
    )
    max_body_bytes: Annotated[int, Field(ge=1)] = Field(
        20 * MIB, description="Largest body of `/classify`, and largest single image."
    )
    max_batch_body_bytes: Annotated[int, Field(ge=1)] = Field(
        64 * MIB,
        description="Largest body of `/classify/batch` and of `/v2/…/infer`, unpacked.",
    )
    max_batch_items: Annotated[int, Field(ge=1, le=10_000)] = Field(
        64,
        description="Most images in one batch request, or one of `/v2/…/infer`; at "
        "most 10,000.",
    )
    max_buffered_bytes: Annotated[int, Field(ge=1)] = Field(
        512 * MIB,
        description="Most bytes of request bodies that a process holds at once, over "
        "all connections; beyond it, new bodies are refused with 503. A compressed "
        "body of `/v2` counts packed and unpacked together. At least "
        "`LINNAEUS_MAX_BODY_BYTES` and `LINNAEUS_MAX_BATCH_BODY_BYTES`.",
    )
    max_connections: Annotated[int, Field(ge=1, le=MOST_FILES)] = Field(
        4096,
        description="Most connections of a process, idle ones too; beyond it, 503 "
        "without a body. Never more than its limit on open files less 64. At most "
        "65,536.",
    )
    max_pixels: Annotated[int, Field(ge=1, le=PILLOW_CEILING)] = Field(
        50_000_000,
        description="Most pixels that an image may declare (width x height); at most "
        "178,956,970, above which Pillow refuses by itself.",
    )
    queue_capacity: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        256,
        description="Most images waiting per model of an engine; single and batch "
        "requests are counted separately. Beyond it, 503. At least "
        "`LINNAEUS_MAX_BATCH_ITEMS`, at most 1,000,000.",
    )
    request_timeout_ms: Annotated[int, Field(ge=1)] = Field(
        10_000,
        description="Longest time from a complete body to its answer; beyond it, 504.",
    )
    body_timeout_ms: Annotated[int, Field(ge=1)] = Field(
        30_000,
        description="Longest time a client may take to send the request head, and "
        "again for the body; beyond it, 408. A client that reads nothing of an answer "
        "for this long is disconnected.",
    )
    keep_alive_s: Annotated[int, Field(ge=1)] = Field(
        75, description="How long an idle connection stays open."
    )
    processes: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = Field(
        "auto",
        description="Processes that share the port. `auto`: one per core if HTTP is "
        "the limit, because every model is cheap and `LINNAEUS_DECODE` is `auto`, or "
        "if they share an engine; else one. At most 256.",
    )
    engine: Literal["auto", "own", "shared"] = Field(
        "auto",
        description="If several processes share the port: each has its `own` engine, "
        "or all decode by themselves and use the `shared` engine of the first. "
        "`auto`: shared on a GPU.",
    )
    lanes: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto",
        description="Threads of a process that decode and run images. `auto`: the "
        "fastest number measured at the start, usually one per core; on a GPU 3. At "
        "most 1,024.",
    )
    batch: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto",
        description="Most images in one run of a model, at most 1,024; `auto`: as "
        "measured. Tiny PNGs for tiny models that are decoded where they arrive run "
        "up to 32 together, whatever is set.",
    )
    decode: Literal["auto", "lane", "ahead"] = Field(
        "auto",
        description="Where images are decoded: in the `lane` that runs them, or "
        "`ahead` of it in threads of their own. `auto`: ahead on a GPU, else in the "
        "lane, and tiny PNGs for tiny models where they arrive.",
    )
    hang_timeout_s: Annotated[float, Field(gt=0, le=DAY_S)] = Field(
        30.0,
        description="Longest time to run one batch, or to decode one image of it; "
        "beyond it the lane counts as hung and is replaced; so is one of several "
        "processes that is silent for this long. At "
        "most 86,400 (one day), which in effect disables the check.",
    )
    drain_notice_s: Annotated[float, Field(ge=0, le=DAY_S)] = Field(
        0.0,
        description="After SIGTERM, how long `/readyz` is red before new images are "
        "refused, so that load balancers notice. At most 86,400.",
    )
    drain_timeout_s: Annotated[float, Field(ge=0, le=DAY_S)] = Field(
        30.0,
        description="After SIGTERM, longest time to finish the requests already "
        "accepted. At most 86,400.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="Lowest level that is logged; `info` includes one line per "
        "request.",
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="`auto` is `console` on a terminal and `json` elsewhere."
    )

    @field_validator("load", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """`a, b/2` → ("a", "b/2"): a list of names needs no JSON."""
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @field_validator("queue_capacity")
    @classmethod
    def _hold_a_batch(cls, value: int, info: ValidationInfo) -> int:
        _check_holds(value, info, "max_batch_items", "a batch of so many")
        return value

    @field_validator("max_buffered_bytes")
    @classmethod
    def _hold_a_body(cls, value: int, info: ValidationInfo) -> int:
        for name in ("max_body_bytes", "max_batch_body_bytes"):
            _check_holds(value, info, name, "a body of so many bytes")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments (the command line) first, then the environment; no files."""
        return init_settings, StrictEnvironment(settings_cls)


def _check_holds(value: int, info: ValidationInfo, name: str, what: str) -> None:
    """Refuse a bound below that of one piece, `name`: what never fits, even where
    nothing else is there, would be told to come back, for ever.
    """
    least = info.data.get(name, 0)  # absent: wrong by itself
    if value < least:
        raise PydanticCustomError(
            "holds_too_little",
            "should be at least {variable}, which is {least}, "
            "or {what} would never be taken",
            {"variable": PREFIX + name.upper(), "least": least, "what": what},
        )


def load_settings(**given: object) -> Settings:
    """Build the settings; whatever is wrong is one SettingsError that names it all."""
    try:
        return Settings(**given)  # type: ignore[arg-type]  # validated by pydantic
    except ValidationError as error:
        lines = [_explain(dict(item)) for item in error.errors()]
        raise SettingsError("\n".join(lines)) from error


def _explain(error: dict[str, Any]) -> str:
    """One problem as a sentence: the variable, its value, what is allowed."""
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        given = name.upper().removeprefix(PREFIX).lower()
        close = difflib.get_close_matches(given, Settings.model_fields, n=1)
        hint = (
            f"; did you mean {PREFIX}{close[0].upper()}?"
            if close
            else "; docs/settings.md lists them"
        )
        return f"{name} is not a setting{hint}"
    variable = PREFIX + name.upper()
    value = str(error["input"])
    message = error["msg"]
    text = f"{variable} is {value!r}: {message[:1].lower()}{message[1:]}"
    if value.startswith("tcp://"):
        # Kubernetes sets NAME_PORT=tcp://… for every Service called NAME.
        text += "; set enableServiceLinks: false in the pod, or rename the Service"
    return text
