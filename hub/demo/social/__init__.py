"""The story of a social network (`clarion demo social`). The folder itself is what `clarion apply` reads."""
