"""What the switches are told: pure forwarding tables, and the OpenFlow application that installs them."""
