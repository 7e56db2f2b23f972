"""The ledger of claims: what the documentation says, the command that shows it, and the value last measured."""
