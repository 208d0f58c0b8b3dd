"""GPUs: each card's use, memory, power, heat, links and errors, as DCGM's exporter tells them."""

from observability.boards import panels, thresholds
from observability.boards.fleet import MODEL
from observability.boards.panels import Board, Query, Row, Scale

CARDS, CARD = 'gpu=~"$gpu"', "GPU {{gpu}}"

HEALTH = Row(
    "Is every card in order?",
    [
        panels.numbers(
            "How many GPUs does the host show?",
            "If it is fewer than the host has, one fell off the bus. See nvidia-smi and the kernel log on"
            " the host; often a reboot helps.",
            Scale(),
            Query("count by (Hostname) (DCGM_FI_DEV_GPU_TEMP)", "{{Hostname}}"),
            width=panels.THIRD,
        ),
        panels.numbers(
            "How many GPUs could not remap a faulty memory row?",
            "Row remapping failed, so the card must be replaced. Stop the slug that uses it; see "
            "docs/operations.md, gpurowremapfailed.",
            Scale(red=1),
            Query("sum(DCGM_FI_DEV_ROW_REMAP_FAILURE)", "cards"),
            width=panels.THIRD,
        ),
        panels.numbers(
            "How many memory rows were remapped for errors that could not be corrected?",
            "If the number grows, the card's memory is failing. Move the slug to other cards, and run the"
            " vendor's diagnostics.",
            Scale(amber=1),
            Query("sum(DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS)", "rows"),
            width=panels.THIRD,
        ),
        panels.rows(
            "Which XID did each GPU report last?",
            "0 means none. 48, 63, 64, 74, 79, 94 and 95 page somebody; 13, 31 and 43 are a program's own"
            " error: see the worker's log.",
            Scale("none", red=1),
            ["Hostname", "gpu", "modelName", "UUID"],
            Query(f"DCGM_FI_DEV_XID_ERRORS{{{CARDS}}}", "XID"),
            to=(MODEL,),
        ),
    ],
)

WORK = Row(
    "Work and traffic",
    [
        panels.lines(
            "How busy is each GPU?",
            "If one is idle while its neighbours work, a rank waits or hangs. If all are idle while "
            "requests wait, the engine stands still.",
            Scale("percent", most=100),
            Query(f"DCGM_FI_DEV_GPU_UTIL{{{CARDS}}}", CARD),
            to=(MODEL,),
        ),
        panels.lines(
            "How much of its memory is in use?",
            "vLLM takes its share at once and keeps it. If more is in use, another program uses the GPU: "
            "find it with nvidia-smi on the host.",
            panels.RATIO,
            Query(
                f"DCGM_FI_DEV_FB_USED{{{CARDS}}} / (DCGM_FI_DEV_FB_USED{{{CARDS}}} + DCGM_FI_DEV_FB_FREE{{{CARDS}}})",
                CARD,
            ),
        ),
        panels.lines(
            "NVLink traffic of each GPU (bytes/s)",
            "If it is flat on one card while others communicate, its links are down and everything waits "
            "for it. Run nvidia-smi nvlink -s on the host.",
            Scale("Bps"),
            Query(f"DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL{{{CARDS}}} * 1048576", CARD),
        ),
    ],
)

BODY = Row(
    "Heat, power, clocks",
    [
        panels.lines(
            "Temperature of each GPU (°C)",
            "Above 87 the GPU slows down: check air, fans and the room. If only one is hot, look for dust"
            " or a broken fan.",
            Scale("celsius", amber=80, red=thresholds.GPU_CELSIUS),
            Query(f"DCGM_FI_DEV_GPU_TEMP{{{CARDS}}}", CARD),
        ),
        panels.lines(
            "Temperature of each GPU's memory (°C)",
            "Above 95 it slows down. Do the same as for the GPU's temperature.",
            Scale("celsius", amber=88, red=thresholds.GPU_MEMORY_CELSIUS),
            Query(f"DCGM_FI_DEV_MEMORY_TEMP{{{CARDS}}}", CARD),
        ),
        panels.lines(
            "Power of each GPU (W)",
            "A card far below its neighbours at the same work is throttled: look at its clock and "
            "temperature.",
            Scale("watt"),
            Query(f"DCGM_FI_DEV_POWER_USAGE{{{CARDS}}}", CARD),
        ),
        panels.lines(
            "Clock of each GPU (Hz)",
            "If it drops under load, the GPU is throttled by heat or by the power limit. nvidia-smi -q -d"
            " PERFORMANCE says which.",
            Scale("hertz"),
            Query(f"DCGM_FI_DEV_SM_CLOCK{{{CARDS}}} * 1e6", CARD),
        ),
        panels.lines(
            "PCIe packets sent again (a second)",
            "More than a few point to a bad riser, cable or slot. Loading weights becomes slow first.",
            Scale("ops", amber=1),
            Query(f"rate(DCGM_FI_DEV_PCIE_REPLAY_COUNTER{{{CARDS}}}[$__rate_interval])", CARD),
        ),
        panels.lines(
            "Memory left on each GPU (bytes)",
            "Little is right while a worker runs. Much memory left beside a running worker means that it "
            "does not use this card.",
            Scale("bytes"),
            Query(f"DCGM_FI_DEV_FB_FREE{{{CARDS}}} * 1048576", CARD),
        ),
    ],
)

GPUS = Board(
    "octet-gpus",
    "Octet / GPUs",
    "Each card's use, memory, power, heat, links and errors.",
    [HEALTH, WORK, BODY],
    [panels.choice("gpu", "label_values(DCGM_FI_DEV_GPU_TEMP, gpu)")],
)
