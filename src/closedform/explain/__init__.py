"""Why an optimizer does not get there: spectrum, forecasts, rehearsals and findings, measured on the data."""
