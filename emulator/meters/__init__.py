"""What a run is measured by: counters, queues, CPU, packet captures."""
