"""The demo: recorded GitHub webhooks, their types and categories, and the player of `clarion demo github`.

The folder itself is what `clarion apply` reads: `types/` and `categories/` lie in it.
"""
