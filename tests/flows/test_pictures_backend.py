"""Pictures are drawn without a change to Matplotlib's backend, which belongs to the program that uses this package."""

from processes import python

CODE = """
import matplotlib
matplotlib.use("svg")
import wavecity.flows.map_picture, wavecity.dataset.card.pictures, wavecity.dataset.preview.picture
import wavecity.model.figures.drawing, wavecity.model.figures.pictures
print(matplotlib.get_backend())
"""


def test_the_backend_stays_the_users() -> None:
    assert python(CODE) == "svg"
