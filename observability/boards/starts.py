"""Weights and start-up: what is fetched, what a start is at, how long it takes, what is in its way."""

from observability.boards import panels
from observability.boards.fleet import MODEL, coded
from observability.boards.panels import AMBER, BLUE, GREEN, GREY, RED, Board, Query, Row, Scale

ITS = 'slug=~"$slug"'
WORKER = "{{slug}} {{instance}}"
TEAL, INDIGO = "#1aa3a3", "#5b6fd6"
PHASES = {
    1: ("weights-check", GREY),
    2: ("waiting-for-gpus", AMBER),
    3: ("starting", "yellow"),
    4: ("loading", BLUE),
    5: ("compiling", "purple"),
    6: ("graphs", TEAL),
    7: ("warm-up", INDIGO),
    8: ("warming", "orange"),
    9: ("ready", GREEN),
    10: ("back-off", RED),
    11: ("misconfigured", RED),
    12: ("stopping", GREY),
}
FETCHING = {
    1: ("listing", GREY),
    2: ("downloading", BLUE),
    3: ("verifying", "purple"),
    4: ("publishing", TEAL),
    5: ("ready", GREEN),
    6: ("failed", RED),
}
LOADED = f'(launcher_phase_seconds{{{ITS},phase="loading"}} > 0)'
BEFORE_READY = 'phase!~"ready|back-off|misconfigured|stopping"'


def job(metric: str, only: str = "") -> str:
    """Of the slug's last weights job, which ends when it is done: what it told last within a day."""
    return f"max by (slug) (last_over_time({metric}{{{ITS}{only}}}[1d]))"


STARTING = Row(
    "What is each start at?",
    [
        panels.states(
            "In which phase is each worker?",
            "waiting-for-gpus: another worker has them. back-off: vLLM ended by itself, its log says why. "
            "misconfigured: mend serve.yaml and start anew. docs/operations.md, A worker does not become "
            "ready.",
            PHASES,
            Query(coded("launcher_phase", "slug, instance", PHASES, "phase", ITS), WORKER),
            to=(MODEL,),
            width=panels.WIDE,
        ),
        panels.bars(
            "How long did each phase of the last start take (s)?",
            "The longest one is what to work on: loading, the disk; compiling, a cache that was lost; "
            "starting, the image.",
            panels.SECONDS,
            Query(
                f"max by (slug, phase) (launcher_phase_seconds{{{ITS},{BEFORE_READY}}})", "{{slug}} {{phase}}"
            ),
        ),
        panels.bars(
            "How long does each phase take as a rule (s)?",
            "The median of the last five starts that became ready. Twice that, and an alert says so.",
            panels.SECONDS,
            Query(
                f"max by (slug, phase) (launcher_usual_phase_seconds{{{ITS},{BEFORE_READY}}})",
                "{{slug}} {{phase}}",
            ),
        ),
        panels.lines(
            "How long until each worker is ready (s)?",
            "An estimate by its earlier starts; clients are told the same. One that does not fall: look at "
            "its phase, above.",
            panels.SECONDS,
            Query(f"launcher_start_left_seconds{{{ITS}}}", WORKER),
        ),
    ],
)

LOADING = Row(
    "Loading and compiling",
    [
        panels.numbers(
            "How fast were the weights loaded (bytes/s)?",
            "Size by the seconds of loading. Far below what the disk gives: safetensors-load-strategy in "
            "serve.yaml, or a shared volume.",
            Scale("Bps"),
            Query(
                f"max by (slug) (launcher_weights_bytes{{{ITS}}} / on (slug, instance) {LOADED})",
                "{{slug}}",
            ),
        ),
        panels.numbers(
            "Which share of the weights is loaded?",
            "1 once a worker has gone on. One that stands still: the disk, or a volume that hangs.",
            panels.RATIO,
            Query(f"launcher_loaded_ratio{{{ITS}}}", WORKER),
        ),
        panels.rows(
            "Did each start find its compiled code?",
            "miss again and again: the volume engine-cache-SLUG was removed, or the pin changed. none: "
            "nothing is compiled.",
            Scale("none"),
            ["slug", "instance", "outcome"],
            Query(f"launcher_compile_cache{{{ITS}}} == 1", "now"),
            width=panels.HALF,
            height=panels.NUMBERS_HIGH,
        ),
    ],
)

TROUBLE = Row(
    "What is in the way?",
    [
        panels.bars(
            "What keeps workers from serving?",
            "0 is good. weights-missing, weights-corrupt: the weights job. gpus-busy: who holds them is in "
            "the worker's log. configuration, crash, hang: its log.",
            Scale(red=1, most=1),
            Query(f"max by (trouble) (launcher_trouble{{{ITS}}})", "{{trouble}}"),
            to=(MODEL,),
        ),
        panels.lines(
            "Starts, crashes and hangs since each launcher began",
            "Steps of crashes: vLLM ends by itself. Steps of hangs: it stood still and was ended. Both are "
            "in the worker's log.",
            Scale(),
            *(
                Query(f"launcher_{what}_total{{{ITS}}}", f"{WORKER} {what}")
                for what in ("starts", "crashes", "hangs")
            ),
        ),
        panels.lines(
            "Which share of each disk is free?",
            "Below a twentieth an alert fires. weights: make prune. cache: remove the volume "
            "engine-cache-SLUG of a slug that is gone.",
            Scale("percentunit", most=1),
            Query(f"launcher_disk_free_bytes{{{ITS}}} / launcher_disk_bytes{{{ITS}}}", "{{slug}} {{disk}}"),
        ),
    ],
)

WEIGHTS = Row(
    "Weights that are being fetched",
    [
        panels.states(
            "In which phase is each weights job?",
            "failed: docker compose logs SLUG-weights has the line, its exit code is in docs/operations.md. "
            "Empty: none has run.",
            FETCHING,
            Query(coded("model_cache_phase", "slug", FETCHING, "phase", ITS), "{{slug}}"),
        ),
        panels.lines(
            "How fast do bytes come, or are read back (bytes/s)?",
            "Zero for minutes while downloading: the link or the hub; the job tries again and resumes. "
            "MODEL_CACHE_FALLBACKS names others.",
            Scale("Bps"),
            Query(f"max by (slug) (model_cache_rate_bytes_per_s{{{ITS}}})", "{{slug}}"),
            width=panels.HALF,
        ),
        panels.numbers(
            "How much of its phase has each job done?",
            "The last job of a slug within a day. Below 1 and not moving: the panels above.",
            panels.RATIO,
            Query(f"{job('model_cache_bytes_done')} / ({job('model_cache_bytes_total')} > 0)", "{{slug}}"),
        ),
        panels.numbers(
            "How many bytes does it go through?",
            "The size of the model; five per cent more must be free on the volume.",
            panels.BYTES,
            Query(job("model_cache_bytes_total"), "{{slug}}"),
        ),
        panels.numbers(
            "How many files are done?",
            "Of the last job of a slug within a day, in its last phase.",
            Scale(),
            Query(job("model_cache_files_done"), "{{slug}} done"),
            Query(job("model_cache_files_total"), "{{slug}} of"),
        ),
        panels.numbers(
            "How often was a transfer tried again?",
            "A few over hours are a slow link. Many: a proxy that cuts long transfers; "
            "MODEL_CACHE_MOST_BYTES_PER_S or a fallback.",
            Scale(amber=10),
            Query(job("model_cache_retries_total"), "{{slug}}"),
        ),
    ],
)

STARTS = Board(
    "octet-starts",
    "Octet / Weights and start-up",
    "What is fetched, what a start is at, how long it takes, what is in its way.",
    [STARTING, LOADING, TROUBLE, WEIGHTS],
    [panels.choice("slug", "label_values(launcher_phase, slug)")],
)
