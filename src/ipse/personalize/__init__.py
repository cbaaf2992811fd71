"""One photograph, any prompt, the same person: the systems, their contract, and the bench that they are measured on."""

from ipse.personalize.contract import METHODS, Personalized, Personalizer, marked, open_method

__all__ = ["METHODS", "Personalized", "Personalizer", "marked", "open_method"]
