"""MT-Bench: questions of two turns, answers, and a judge's grades, in FastChat's file formats."""
