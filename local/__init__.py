"""The development stack: servers, processes and demonstration on one machine. No part of the product."""
