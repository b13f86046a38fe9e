"""query → **question**: which model is asked, and how it shall answer."""

from typing import NamedTuple

from service.catalog import CatalogEntry
from service.exchange import Exchange
from service.parameters import Parameters, read_parameters
from service.serving import Serving


class Question(NamedTuple):
    """What a request wants to know."""

    entry: CatalogEntry
    parameters: Parameters


def read_question(query: bytes, serving: Serving, exchange: Exchange) -> Question:
    """Read the query string, before any work is done for it.

    Raises:
        InvalidParameterError: unknown, given twice, or not what this model allows.
        ModelNotFoundError: naming what is loaded.
    """
    parameters = read_parameters(query)
    entry = serving.catalog.find(parameters.model, parameters.version)
    entry.check(parameters)
    exchange.facts["model"], exchange.facts["version"] = entry.key
    return Question(entry, parameters)
