"""``rallypoint jobs``, ``status`` and the rest: what people ask a coordinator, over its public JobService.

:mod:`~rallypoint.commands.entry` has a function for each command, and imports what the command is made of once its
arguments are right. A command *acts* in a :class:`~rallypoint.commands.session.Session`: it calls, and shows messages.
How they look as text is a pure function of them.
"""
