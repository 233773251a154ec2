"""What the extension costs, beside the same done by hand: see README.rst here."""
