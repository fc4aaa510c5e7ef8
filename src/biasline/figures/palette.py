"""The colours of everything that is drawn: figures, and runs in MLflow's charts."""

BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
# Okabe and Ito's palette but for its yellow, which is none on white: told apart with every kind of colour vision.
COLORS = (BLUE, ORANGE, GREEN, "#CC79A7", "#D55E00", "#56B4E9", "#000000")
