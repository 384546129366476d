"""What the hosts send: schedules of collectives, schemes that split and tag them, sockets that replay them."""
