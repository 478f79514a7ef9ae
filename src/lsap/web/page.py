"""`python -m lsap.app`: a page to play with: a picture, its inversion and edits, the numbers, the codes to take away.

Here is the page only; what it does is in `playground.py`. Seen by nobody but this machine unless `host` says otherwise.
Uploads are limited in size, decoded by lsap's own few decoders, deleted as soon as they are read, and never executed.
"""

from __future__ import annotations

import html
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lsap.api.image_inputs import Pictures
from lsap.data import SUFFIXES
from lsap.errors import BadValue, LsapError
from lsap.inversion import Inversion
from lsap.web.session import Playground, Slider, Turn, shown

MOST = 6  # attributes that are listed
HOUR = 3600  # seconds after which what a visitor left in the page's folder is deleted
STYLE = """
.gradio-container {max-width: 1180px !important; margin: 0 auto !important}
#notice .wrong {color: #b3261e; font-weight: 600}
#samples .grid-wrap {min-height: 0; max-height: none}
#samples .grid-container {grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 6px; padding: 28px 4px 4px}
#samples .thumbnail-lg {width: 100%; min-width: 0; height: auto; aspect-ratio: 1}
.numbers caption {text-align: left; padding: 3px 8px; font-weight: 600}
.numbers table {border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums}
.numbers table, .numbers thead, .numbers tbody, .numbers tr {border: 0 !important}
.numbers th, .numbers td {text-align: right; padding: 3px 8px; border: 0 !important}
.numbers th, .numbers td {font-weight: 400; white-space: nowrap}
.numbers tr :first-child {text-align: left}
.numbers thead th {font-weight: 600; border-bottom: 1px solid #8888 !important}
.numbers p, .aside {margin: 4px 8px 0; opacity: .75; font-size: .85em}
"""
INTRODUCTION = """# lsap
Choose a sample or upload an image, press **Invert**, and move the sliders to edit it."""


def serve(config: DictConfig) -> None:
    """Show the page until it is stopped (Ctrl-C).

    Raises:
        BadValue: gradio is not installed, a number that cannot work, or a port that is taken.
        MissingFile: weights that the embeddings need.
    """
    with own_folder():
        gradio = extra()
        page = built(gradio, Playground(config))
        where = f"http://{config.host}:{config.port}"
        print(f"{where}  (Ctrl-C ends it)", flush=True)
        try:
            page.launch(
                server_name=config.host, server_port=config.port, inbrowser=config.open, share=False, quiet=True,
                max_file_size=f"{config.upload_mb}mb", show_error=False, footer_links=[], ssr_mode=False,
                theme=theme(gradio), css=STYLE,
            )  # fmt: skip
        except OSError as error:
            raise BadValue(f"{where} cannot be served ({error}); choose another host or port") from error


def extra() -> Any:
    """gradio, which only this page needs; raises BadValue where it is not installed."""
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise BadValue(f"the page needs gradio ({error.name} is not installed): pip install 'lsap[app]'") from error
    return gradio


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for all that gradio keeps while the page is shown; it is removed at the end, also after `kill`."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, stop)
    with tempfile.TemporaryDirectory(prefix="lsap-app-") as folder:
        kept = {name: os.environ.get(name) for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED")}
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        try:
            yield Path(folder)
        finally:
            signal.signal(signal.SIGTERM, earlier)
            for name, value in kept.items():
                os.environ.pop(name)
                os.environ |= {} if value is None else {name: value}


def theme(gradio: Any) -> Any:
    """The page's look, by the fonts of the visitor's machine: nothing is fetched from elsewhere."""
    return gradio.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )


def built(gradio: Any, playground: Playground) -> Any:
    """The page: a `gradio.Blocks`."""
    acts = Acts(gradio, playground)
    first = playground.embeddings[0]
    with gradio.Blocks(title="lsap", analytics_enabled=False, delete_cache=(600, HOUR)) as page:
        gradio.Markdown(INTRODUCTION)
        notice = gradio.HTML("", elem_id="notice")
        photo, turn = gradio.State(time_to_live=HOUR), gradio.State(time_to_live=HOUR)
        with gradio.Row():
            with gradio.Column(scale=1, min_width=280):
                gallery = _gallery(gradio, playground)
                dropped = gradio.File(
                    label="or upload an image",
                    file_types=list(SUFFIXES), type="filepath", height=140, elem_id="upload",
                )  # fmt: skip
                gradio.HTML(
                    f"At most {playground.config.upload_mb} MB. It is not kept.", elem_classes="aside", padding=False
                )
                embedding = gradio.Radio(playground.embeddings, value=first, label="embedding")
                refinement = gradio.Radio(playground.refinements(first), value="none", label="refinement")
                start = gradio.Button("Invert", variant="primary", elem_id="invert")
            with gradio.Column(scale=2, min_width=560):
                with gradio.Row():
                    seen, inverted, edited = (
                        gradio.Image(
                            label=label,
                            format="png",
                            interactive=False,
                            height=250,
                            elem_id=label,
                            buttons=["download"],
                        )
                        for label in ("input", "inversion", "edit")
                    )
                with gradio.Row():
                    with gradio.Column(min_width=240):
                        sliders = [_slider(gradio, slider) for slider in playground.sliders]
                        reset = gradio.Button("Reset", size="sm", visible=bool(sliders))
                    with gradio.Column(min_width=240):
                        numbers = gradio.HTML("", elem_id="numbers", elem_classes="numbers")
                        changes = gradio.HTML("", elem_id="changes", elem_classes="numbers")
                        codes = gradio.DownloadButton("Download the codes", interactive=False, elem_id="codes")

        def sample(event: Any) -> tuple[Any, ...]:
            return acts.sample(event)

        def invert(progress: Any = gradio.Progress(), *values: Any) -> tuple[Any, ...]:  # noqa: B008 (so gradio wants it)
            return acts.invert(progress, *values)

        sample.__annotations__["event"] = gradio.SelectData  # how gradio knows what to hand over
        results = [edited, numbers, changes, codes, notice]
        quiet = {"api_visibility": "undocumented", "concurrency_limit": 1}
        running = [
            start.click(
                invert, [photo, embedding, refinement, *sliders], [turn, inverted, *results],
                show_progress_on=inverted, **quiet,
            )
        ]  # fmt: skip
        for slider in sliders:
            running.append(
                slider.change(
                    acts.edit, [photo, turn, *sliders], results, trigger_mode="always_last", show_progress="hidden",
                    **quiet,
                )
            )  # fmt: skip
        taken = [photo, seen, turn, inverted, *results]
        if gallery is not None:
            gallery.select(sample, None, taken, cancels=running, **quiet)
        uploaded = dropped.upload(acts.upload, [dropped], [dropped, *taken], cancels=running, **quiet)
        if gallery is not None:
            uploaded.then(lambda: gradio.Gallery(selected_index=None), None, gallery, show_progress="hidden", **quiet)
        embedding.change(acts.embedding, [embedding, refinement], [refinement, notice], **quiet)
        reset.click(lambda: [0.0] * len(sliders), None, sliders, **quiet)
    return page


class Acts:
    """What happens when a visitor does something: the page's values in, the page's values out.

    A visitor's mistake is a line on the page (`notice`), and leaves everything else as it was. A new picture clears all
    that was shown of the one before it.

    Args:
        gradio: the module.
        playground: what works.
    """

    def __init__(self, gradio: Any, playground: Playground) -> None:
        self.gradio, self.playground = gradio, playground

    def sample(self, event: Any) -> tuple[Any, ...]:
        """A sample was chosen: photo, its picture, turn, inversion, edit, numbers, changes, codes, notice."""
        return self._taken(lambda: self.playground.sample(event.index))

    def upload(self, path: str | None) -> tuple[Any, ...]:
        """A file came in; it is read and deleted: the emptied field, and what `sample` gives."""

        def read() -> Pictures:
            file = Path(str(path))
            data = file.read_bytes()
            file.unlink()
            return self.playground.upload(data, file.name)

        return None, *self._taken(read)

    def embedding(self, embedding: str, refinement: str) -> tuple[Any, ...]:
        """Another embedding was chosen: the refinements over it, notice."""
        try:
            there = self.playground.refinements(embedding)
        except LsapError as error:
            return self._unchanged(2, str(error))
        return self.gradio.Radio(there, value=refinement if refinement in there else there[0]), ""

    def invert(
        self, progress: Any, photo: Pictures | None, embedding: str, refinement: str, *strengths: float
    ) -> tuple[Any, ...]:
        """The button was pressed: turn, inversion, and what `edit` gives."""

        def report(share: float, losses: Mapping[str, float]) -> None:
            progress(share, desc=embedding if refinement == "none" else f"{embedding} + {refinement}")

        if photo is None:
            return self._unchanged(7, "Choose a sample or upload an image first.")
        try:
            turn = self.playground.invert(photo, embedding, refinement, report)
        except LsapError as error:
            return self._unchanged(7, str(error))
        return turn, shown(turn.inverter, turn.inversion), *self.edit(photo, turn, *strengths)

    def edit(self, photo: Pictures | None, turn: Turn | None, *strengths: float) -> tuple[Any, ...]:
        """A slider was moved: edit, numbers, changes, codes, notice; unchanged where `turn` is of another photo."""
        if turn is None or turn.photo is not photo:
            return self._unchanged(5, "")
        try:
            edited = self.playground.edited(turn, strengths)
        except LsapError as error:
            return self._unchanged(5, str(error))
        return (
            shown(turn.inverter, edited),
            table(self.playground, turn, edited),
            effects(self.playground, turn, edited),
            self.gradio.DownloadButton(value=str(self.playground.file(turn, edited)), interactive=True),
            warned(turn.warning),
        )

    def _taken(self, take: Callable[[], Pictures]) -> tuple[Any, ...]:
        try:
            photo = take()
        except LsapError as error:
            return self._unchanged(9, str(error))
        cleared = None, None, None, "", "", self.gradio.DownloadButton(value=None, interactive=False)
        return photo, shown(self.playground.first, photo), *cleared, ""

    def _unchanged(self, count: int, message: str) -> tuple[Any, ...]:
        """So many values, of which only the notice, the last, is new."""
        return *[self.gradio.skip()] * (count - 1), warned(message)


def warned(message: str) -> str:
    """A line for the visitor as HTML; nothing where there is none."""
    return message and f'<span class="wrong">{html.escape(message)}</span>'


def table(playground: Playground, turn: Turn, edited: Inversion) -> str:
    """The numbers as HTML."""
    rows = "".join(
        f"<tr><th scope='row'>{name}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, *cells in playground.numbers(turn, edited)
    )
    return (
        f"<table><caption>{html.escape(turn.method)}</caption>"
        "<thead><tr><th></th><th>MSE ↓</th><th>LPIPS ↓</th><th>NSCD</th></tr></thead>"
        f"<tbody>{rows}</tbody></table><p>synthetic: the generator's own samples. Codes whose NSCD is below theirs lie "
        "nearer the mean than a typical sample.</p>"
    )


def effects(playground: Playground, turn: Turn, edited: Inversion) -> str:
    """Measured changes of attributes by the edit, as HTML; empty where the domain has no reader."""
    found = playground.changes(turn, edited)
    if not found:
        return ""
    rows = "".join(
        f"<tr><th scope='row'>{html.escape(name.replace('_', ' '))}</th><td>{value:+.1f}</td></tr>"
        for name, value in list(found.items())[:MOST]
    )
    return (
        f"<table><thead><tr><th>attribute</th><th>measured change (SD)</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _gallery(gradio: Any, playground: Playground) -> Any:
    """The samples to choose from; None where there are none."""
    samples = playground.samples
    if samples is None:
        return None
    pictures = [shown(playground.first, samples.select([name])) for name in samples.names]
    return gradio.Gallery(
        pictures, label="samples", columns=4, height="auto", object_fit="contain", allow_preview=False, format="png",
        interactive=False, buttons=[], elem_id="samples",
    )  # fmt: skip


def _slider(gradio: Any, slider: Slider) -> Any:
    return gradio.Slider(
        slider.low, slider.high, 0.0, step=0.1, label=slider.direction.name, elem_id=f"slider-{slider.direction.name}",
        buttons=[],
    )  # fmt: skip
