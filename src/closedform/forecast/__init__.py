"""What a first-order optimizer will do, from the spectrum alone."""

from closedform.forecast.curve import Forecast, forecast, start_coordinates
from closedform.forecast.limits import Limit, first_order_limits
from closedform.forecast.minibatch import MiniBatch, mini_batch
from closedform.forecast.recurrence import step_limit
from closedform.forecast.steps import gradient_descent_steps

__all__ = [
    "Forecast",
    "Limit",
    "MiniBatch",
    "first_order_limits",
    "forecast",
    "gradient_descent_steps",
    "mini_batch",
    "start_coordinates",
    "step_limit",
]
