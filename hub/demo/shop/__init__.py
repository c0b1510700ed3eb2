"""The story of a shop (`clarion demo shop`). The folder itself is what `clarion apply` reads."""
