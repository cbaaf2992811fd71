"""What changes while the person stays, and what does not: the vocabulary of attributes, and recognizing them."""

from ipse.attributes.recognizer import AttributeRecognizer, Told
from ipse.attributes.vocabulary import CELEBA, VOCABULARY, Attribute, celeba_labels

__all__ = ["CELEBA", "VOCABULARY", "Attribute", "AttributeRecognizer", "Told", "celeba_labels"]
