"""Grafana's dashboards as code: `python -m observability.boards FOLDER` writes the JSON that Grafana is given."""

from observability.boards.fleet import FLEET
from observability.boards.gateway import GATEWAY
from observability.boards.gpus import GPUS
from observability.boards.model import MODEL
from observability.boards.starts import STARTS
from observability.boards.tenants import TENANTS

BOARDS = (FLEET, MODEL, GATEWAY, GPUS, STARTS, TENANTS)
