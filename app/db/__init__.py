"""Tables, transactions and every change of a state."""
