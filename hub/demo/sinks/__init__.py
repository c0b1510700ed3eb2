"""Local servers that stand for the world: two of them take mail, one takes SMS, one takes web push.

They keep what arrives in memory and in order, on free ports of the loopback, and can be shut for a while: then they
refuse connections, as a server does that fell. Nothing leaves this machine.
"""
