"""Evaluators: what trains the candidates of a search."""

from snas.evaluators.asha import Ladder
from snas.evaluators.base import Evaluator, Failure, Feed, Job, evaluators

__all__ = ["Evaluator", "Failure", "Feed", "Job", "Ladder", "evaluators"]
