"""What a first-order optimizer will do, from the spectrum alone."""

from closedform.explain.forecasts.curve import Forecast, forecast, start_coordinates
from closedform.explain.forecasts.limits import Limit, first_order_limits
from closedform.explain.forecasts.minibatch import MiniBatch, mini_batch
from closedform.explain.forecasts.recurrence import step_limit
from closedform.explain.forecasts.scheduled import ScheduledRun, StepSettings, scheduled_run

__all__ = [
    "Forecast",
    "Limit",
    "MiniBatch",
    "ScheduledRun",
    "StepSettings",
    "first_order_limits",
    "forecast",
    "mini_batch",
    "scheduled_run",
    "start_coordinates",
    "step_limit",
]
