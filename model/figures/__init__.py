"""Pictures of the report: how results, scenes and losses are drawn, and figures as rows."""
