"""Pictures of dashboards: a dashboard's JSON and what Prometheus answers, as one SVG."""
