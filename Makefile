# A thin wrapper over ./dev, for those who type make. Arguments: make test ARGS="-k clock"
.PHONY: help demo test check lowest setup

help demo test check lowest setup:
	@./dev $@ $(ARGS)
