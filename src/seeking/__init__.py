from seeking import errors
