"""query → **question**: which model is asked, and how it shall answer."""

from dataclasses import dataclass

from service.catalog import Served
from service.exchange import Exchange
from service.parameters import Parameters, read_parameters
from service.serving import Serving


@dataclass(frozen=True, slots=True)
class Question:
    """What a request wants to know."""

    served: Served
    parameters: Parameters


def read_question(query: bytes, serving: Serving, exchange: Exchange) -> Question:
    """Read the query string, before any work is done for it.

    Raises:
        InvalidParameterError: unknown, given twice, or not what this model allows.
        ModelNotFoundError: naming what is loaded.
    """
    parameters = read_parameters(query)
    served = serving.catalog.find(parameters.model, parameters.version)
    served.check(parameters)
    exchange.facts["model"], exchange.facts["version"] = served.key
    return Question(served, parameters)
