"""Which items of a catalogue a parent takes: one module for each kind of layer, and the verb (`scenes`)."""
