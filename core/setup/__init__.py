"""What launch.py does before anything is installed: standard library only, all of it.

state: what .venv was made from, read at every start. install: make it so. wheels: which torch this machine
wants. llama_cpp: an optional part, installed on request.
"""
