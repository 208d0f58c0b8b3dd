"""Prometheus' HTTP API, as far as a picture needs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from observability.picture.panels import Panel, Span, Target
from observability.picture.series import Filled, Series, series_of

API = "/api/v1/"


class NoPrometheus(Exception):
    """Nothing there answers as Prometheus does; the message says what happened."""


class Refused(Exception):
    """Prometheus does not take a query; the message has its words."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that answers queries."""

    http: httpx.Client

    def filled(self, panel: Panel, span: Span) -> Filled:
        """A panel with its series. Raises NoPrometheus."""
        try:
            return Filled(panel, span, [one for target in panel.targets for one in self.series(target, span)])
        except Refused as error:
            return Filled(panel, span, problem=str(error))

    def series(self, target: Target, span: Span) -> list[Series]:
        """What a query gives, now or over the span. Raises NoPrometheus, Refused."""
        if target.is_now:
            return series_of(self.ask("query", {"query": target.expr, "time": span.end}), target)
        form = {"query": target.expr, "start": span.begin, "end": span.end, "step": span.step}
        return series_of(self.ask("query_range", form), target)

    def ask(self, call: str, form: Mapping[str, object]) -> dict[str, Any]:
        """The `data` of an answer. Raises NoPrometheus, Refused."""
        try:
            answer = self.http.post(API + call, data=dict(form))
            said = answer.json()
            if said["status"] == "success":
                return dict(said["data"])
        except httpx.HTTPError as error:
            raise NoPrometheus(f"{self.http.base_url} does not answer: {error!r}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise NoPrometheus(
                f"{self.http.base_url} answers {answer.status_code}, but not as Prometheus"
            ) from error
        raise Refused(f"{said.get('errorType', 'error')}: {said.get('error', '')}")
