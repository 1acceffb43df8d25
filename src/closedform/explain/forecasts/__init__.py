"""What an optimizer will do, from the spectrum alone: one file for each whose course on a quadratic is known."""

from closedform.explain.forecasts.curve import Forecast, forecast, start_coordinates
from closedform.explain.forecasts.descent import Descent
from closedform.explain.forecasts.family import FAMILY, descent_of, step_limit
from closedform.explain.forecasts.limits import Limit, first_order_limits
from closedform.explain.forecasts.minibatch import MiniBatch, mini_batch
from closedform.explain.forecasts.noisy_schedules import ScheduledBatches, scheduled_batches
from closedform.explain.forecasts.scheduled import ScheduledRun, scheduled_run

__all__ = [
    "FAMILY",
    "Descent",
    "Forecast",
    "Limit",
    "MiniBatch",
    "ScheduledBatches",
    "ScheduledRun",
    "descent_of",
    "first_order_limits",
    "forecast",
    "mini_batch",
    "scheduled_batches",
    "scheduled_run",
    "start_coordinates",
    "step_limit",
]
