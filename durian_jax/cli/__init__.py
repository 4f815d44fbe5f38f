"""What the verbs take, and which function each calls."""
