"""What an operator sees and does: payments found and shown, repaired by actions that the engine carries out.

connector.py   how it is put together
app.py         the HTTP application: one router per slice
worker.py      the jobs of operator-action.bpmn
"""
