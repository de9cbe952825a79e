"""The contract of plug-ins as named requirements, which `bench check` holds a plug-in against."""
