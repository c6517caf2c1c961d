use rule test as test_conformal_selective with:
    wildcard_constraints:
        method=variants("conformal_selective"),
    params:
        code=method_code("conformal_selective"),
