"""What a logged model takes and gives, as MLflow writes it down."""

import json

COLUMNS = {
    "PassengerId": "long",
    "Pclass": "long",
    "Name": "string",
    "Sex": "string",
    "Age": "double",
    "SibSp": "long",
    "Parch": "long",
    "Ticket": "string",
    "Fare": "double",
    "Cabin": "string",
    "Embarked": "string",
}


def served_signature(labels: tuple[str, ...]) -> dict[str, str]:
    """Kaggle's columns in; a label and a probability per class out."""
    inputs = [{"type": kind, "name": name, "required": True} for name, kind in COLUMNS.items()]
    outputs = [{"type": "string", "name": "label", "required": True}]
    outputs += [{"type": "float", "name": f"probability_{label}", "required": True} for label in labels]
    return {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs)}
