"""The command `gpu`: in minutes, whether a card can be trusted with which backend and precision, and how fast it is.

plan (what is asked of it, in order of value) < work (what runs in processes of its own) < verdict (files of results
understood) < running (parts, and their time) < command. From outside: `command.gpu`. May import both programs; what
is timed lies in asv_bench, which only a checkout has.
"""
